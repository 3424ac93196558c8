"""Everything that looks at a machine: the standard library only, Python 3.8 or newer.

The same modules run in this program (`hardware/detect.py`) and, packed into one script by `hardware/script.py`, on
another machine: over ssh, in a notebook cell, in a batch job. So nothing here may import a package that is not in the
standard library without doing well without it, and nothing may be written to disk.
"""
