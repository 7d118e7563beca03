"""What operators share: a warning that blocks a form, an answer that is a notice, results as text."""

from fiftyone.operators import types


def warn(form, problem):
    """A sentence that keeps the form from being run."""
    if problem:
        form.view("problem", types.Warning(label=problem)).invalid = True


def answer(ctx, run):
    """Run and announce; what a person can mend becomes a notice, not a stack trace."""
    try:
        result, text = run()
    except ValueError as error:
        if ctx.delegated:
            raise
        ctx.ops.notify(str(error), variant="error")
        return {"error": str(error)}
    if not ctx.delegated:
        ctx.ops.notify(text, variant="success")
    return result


def outputs(ctx, **labels):
    """Results by name, or the error in their place."""
    form = types.Object()
    for name, label in ({"error": "Not done"} if "error" in (ctx.results or {}) else labels).items():
        form.str(name, label=label)
    return types.Property(form)
