"""What operators and panels share: errors told as sentences, a warning that blocks a form, results as text."""

import functools
import inspect
import logging

import fiftyone.operators as foo
from fiftyone.operators import types

log = logging.getLogger("gsal_fo.plugin")
EXPECTED = (ValueError, OSError, ImportError)  # their texts are made for people
LONGEST = 600  # letters of a notice


def sentence(error):
    """One line for any error, for a notice or a panel; the stack trace goes to the server's log."""
    text = " ".join(str(error).split())
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]} ..."
    if isinstance(error, EXPECTED) and text:
        log.info(text, exc_info=error)
        return text
    log.error("%s: %s", type(error).__name__, text, exc_info=error)
    return f"{type(error).__name__}: {text or 'no message'}; this should not happen, see the server's log"


def tell(ctx, error):
    """Show an error as a notice; returns its sentence."""
    text = sentence(error)
    ctx.ops.notify(text, variant="error")
    return text


def need_dataset(ctx):
    """Raise ValueError where no dataset is open: operators can be called from the App's first page, too."""
    if ctx.dataset is None:
        raise ValueError("no dataset is open; open one first")


class Operator(foo.Operator):
    """An operator in which every error is one sentence: in the form, as a notice, never as a stack trace.

    A delegated run is the exception: nobody is looking, and its record must say that it failed.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name, wrap in (("resolve_input", _form), ("resolve_output", _output), ("execute", _execute)):
            if name in vars(cls):
                setattr(cls, name, wrap(vars(cls)[name]))


def _form(method):
    @functools.wraps(method)
    def resolve_input(self, ctx):
        try:
            need_dataset(ctx)
            return method(self, ctx)
        except Exception as error:
            form = types.Object()
            warn(form, sentence(error))
            return types.Property(form, view=types.View(label=self.config.label))

    return resolve_input


def _output(method):
    @functools.wraps(method)
    def resolve_output(self, ctx):
        try:
            return method(self, ctx)
        except Exception as error:
            form = types.Object()
            form.view("problem", types.Warning(label=sentence(error)))
            return types.Property(form)

    return resolve_output


def _execute(method):
    @functools.wraps(method)
    def execute(self, ctx):
        try:
            need_dataset(ctx)
            return method(self, ctx)
        except Exception as error:
            if ctx.delegated:
                raise
            return {"error": tell(ctx, error)}

    @functools.wraps(method)
    def stream(self, ctx):
        try:
            need_dataset(ctx)
            yield from method(self, ctx)
        except Exception as error:
            if ctx.delegated:
                raise
            yield ctx.trigger("notify", {"message": sentence(error), "variant": "error"})

    return stream if inspect.isgeneratorfunction(method) else execute


def warn(form, problem):
    """A sentence that keeps the form from being run."""
    if problem:
        form.view("problem", types.Warning(label=problem)).invalid = True


def answer(ctx, run):
    """Run and announce."""
    result, text = run()
    if not ctx.delegated:
        ctx.ops.notify(text, variant="success")
    return result


def outputs(ctx, **labels):
    """Results by name, or the error in their place."""
    form = types.Object()
    for name, label in ({"error": "Not done"} if "error" in (ctx.results or {}) else labels).items():
        form.str(name, label=label)
    return types.Property(form)
