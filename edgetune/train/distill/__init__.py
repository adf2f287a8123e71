"""Distillation: a student learns from what a larger network says of the very views that it sees itself.

`guide.Guide` is what the training loop holds: it fetches the teacher's answers and compares the student with them. The answers
come from a file where they are known (`cache`), from the teacher where they are not (`teacher`); `losses` has the comparisons.
`folding` makes a teacher of ours answer sooner.
"""
