"""Where vectors become tables: the passes over a run, the kernel, and who computes which part."""
