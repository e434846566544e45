"""Power cepstrum."""
