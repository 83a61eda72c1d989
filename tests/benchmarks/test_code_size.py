"""Lines of code: neither blank lines, nor comments, nor docstrings count."""

import code_size

SOURCE = '''"""A module
of two lines."""

import math  # counts once

# A comment.
def area(r):
    """Of a circle."""

    text = """counts
    twice"""
    return (
        math.pi * r**2
    )
'''


def test_only_lines_of_code_count():
    assert code_size.code_lines(SOURCE) == len(["import", "def", "text", "twice", "return", "pi", ")"])


def test_a_file_without_code_has_none():
    assert code_size.code_lines("") == code_size.code_lines('"""Of its own."""\n') == 0
