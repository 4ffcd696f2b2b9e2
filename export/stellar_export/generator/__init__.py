"""The generator pack: an SDXL base model, and what makes words of a photo, as graphs for the service.

`base.py` reads the base model, `modules.py` and `words.py` have what is exported, `export.py` builds the pack,
`goldens.py` has what diffusers' own pipeline gives. `tiny_sdxl.py` and `tiny_sd.py` make random base models for tests.
"""
