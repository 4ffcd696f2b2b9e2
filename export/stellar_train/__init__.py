"""Trains the generators that stellar-score compares: StellarNet-like, ELITE, DreamBooth and Textual Inversion."""
