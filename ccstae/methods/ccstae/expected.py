"""What the model expects where windows cannot be looked at one by one: whole patterns, and the
light of the next disks in the window of one.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ccstae.methods.ccstae import affine, diffuse_background, transformer
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.refine import State
from ccstae.methods.ccstae.transformer import Patches


def pattern(dictionary: Dictionary, state: State) -> Float[Tensor, "n Qy Qx"]:
    """Counts that the model expects in n patterns, m = sum_k A_k T(q - s_k) + b beta(q)."""
    diffuse = diffuse_background.render(dictionary.background, state.centre, dictionary.detector_px)
    return with_disks(dictionary, state, state.background_scale[:, None, None] * diffuse)


def with_disks(
    dictionary: Dictionary, state: State, images: Float[Tensor, "n Qy Qx"]
) -> Float[Tensor, "n Qy Qx"]:
    """Images plus the disks of n patterns, sum_k A_k T(q - s_k)."""
    position = transformer.positions(state.M, state.centre, dictionary.g) + state.stray
    patch = transformer.patches(position, dictionary.offsets, dictionary.detector_px)
    shift = patch.shift(position)
    if dictionary.affine:
        direct, disk = (
            affine.Surface(profile, dictionary.pixels)
            for profile in (dictionary.direct, dictionary.disk)
        )
        disks = affine.render_warped(direct, disk, state.M, dictionary.offsets, shift)[0]
    else:
        images_near, expansion = dictionary.images_near(shift)
        disks = (expansion[:, :1] @ images_near).reshape(patch.index.shape)
    return patch.added_to(images, disks * state.intensity[..., None])


def all_disks(dictionary: Dictionary, state: State, patch: Patches) -> Float[Tensor, "n K p"]:
    """Counts that the model expects in windows from the disks of n patterns, their own among
    them.
    """
    images = state.intensity.new_zeros(len(state.M), *dictionary.detector_px)
    return patch.cut(with_disks(dictionary, state, images))
