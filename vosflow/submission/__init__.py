"""Submissions: what the servers of datasets without public ground truth take, checked before it is sent.

formats   the layout that each server wants; plain facts, read at planning
check     is everything there, readable, of the right size, with the right ids
pack      one zip (or folder), the same bytes each time
"""
