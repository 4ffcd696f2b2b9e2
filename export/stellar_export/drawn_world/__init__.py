"""The drawn world: drawings whose prompts say what they show, and the demo pack's weights, trained on them.

`python -m stellar_export.drawn_world train` makes `weights/` from a folder of drawings, which the crate
`stellar-drawings` writes; `evaluate` prints how well each metric tells right from wrong on drawings that were not
trained on. Outside of these drawings the weights say nothing.
"""
