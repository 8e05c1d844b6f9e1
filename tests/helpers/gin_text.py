"""Text of gin files: where it binds what, and the same bindings in gin's other spelling."""

import itertools
import re

from gin.config_parser import BindingStatement, ConfigParser, ParserDelegate

SPELLINGS = ('lines', 'blocks', 'mixed')
"""Every binding a line of its own; in a block of its class; the one and the other by turns."""

BINDING = re.compile(r'^([\w/.]+)\.(\w+)(?= =)')


class _Names(ParserDelegate):
    """Takes references and macros for what they are called."""

    def configurable_reference(self, scoped_configurable_name, evaluate):
        return scoped_configurable_name

    def macro(self, macro_name):
        return macro_name


def lines_of_bindings(text):
    """The line of each binding by its name, `scope/module.Class.field`; of one bound more than once the last."""
    return {
        '.'.join(filter(None, [f'{statement.scope}/{statement.selector}'.lstrip('/'), statement.arg_name])): (
            statement.location.line_num
        )
        for statement in ConfigParser(text, _Names())
        if isinstance(statement, BindingStatement)
    }


def respelled(text, spelling):
    """A text whose bindings stand in lines of their own, with the same bindings in the same order in another spelling.

    Bindings of one class that follow one another share a block. Macros have no other spelling.
    """
    in_block = {'lines': itertools.repeat(False), 'blocks': itertools.repeat(True), 'mixed': itertools.cycle((1, 0))}
    block, lines = None, []
    for line in text.split('\n'):
        if re.match(r'[^\W\d]', line):  # A new statement; what begins otherwise belongs to the one before.
            match = BINDING.match(line)
            if match and next(in_block[spelling]):
                lines += [f'{match[1]}:'] if block != match[1] else []
                line = f'    {line[match.start(2) :]}'
                block = match[1]
            else:
                block = None
        lines.append(line)
    return '\n'.join(lines)
