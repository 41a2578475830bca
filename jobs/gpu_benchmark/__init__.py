"""`label-corpus benchmark --gpu`: what one GPU does, phase by phase, and which of the program's constants that contradicts."""
