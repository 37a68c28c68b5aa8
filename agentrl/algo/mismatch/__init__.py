"""Corrections for tokens whose sampler was not quite the policy that is trained (an older version,
another engine, another precision), one file each.

`q = exp(old_logp - sampler_logp)`: the trainer's probability of a token before the update, over the
sampler's.
"""
