"""The HTTP API: every form of the page at an address of its own, for programs.

    GET /api/sample?num=10&truncation=0.4&seed=0&category=three     a PNG with its recipe inside

What follows the question mark is what follows it in the page's own address, and what is left out
is what the page begins with. Gradio has an API, too, but one that answers a mistake with status
200 and an event; this one keeps to HTTP, and a line of curl can use it.
"""

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse

from biggan._version import __version__
from biggan.classes import search_classes
from biggan.demo.address import Settings, from_query
from biggan.demo.drawing import SheetRecipe, draw_png
from biggan.demo.forms import (
    EXPLORE,
    INTERPOLATE,
    SWEEP,
    Category,
    Choice,
    Control,
    Form,
    Number,
)
from biggan.demo.line import RETRY, AbandonedError, FullLineError, Line
from biggan.demo.reference import reference_page
from biggan.demo.shelf import ModelShelf, ModelUnavailableError
from biggan.errors import InputError
from biggan.gan import Gan
from biggan.provenance import file_stem

_DRAWINGS = (
    ("sample", EXPLORE, "Samples of one class."),
    ("interpolate", INTERPOLATE, "Paths from one class to another, one a row."),
    ("sweep", SWEEP, "The same samples over truncations, the largest first: the paper's Figure 2."),
)
_REFUSALS = {
    400: "A value out of range or of another kind, an unknown name, a class that the model lacks",
    404: "No such model",
    429: "Too many requests from this client, where there is a limit",
    503: "Too many requests wait, or the model cannot be loaded",
}
_CLIENT_GONE = 499  # nobody reads it
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def build_api(shelf: ModelShelf, line: Line) -> FastAPI:
    """The addresses below `/api`.

    Args:
        shelf: What can be drawn with.
        line: Where requests wait.
    """
    api = FastAPI(
        title="biggan",
        version=__version__,
        description="Pictures of a class-conditional GAN. Mistakes are told by a status of 400 or "
        'more and {"detail": "what is wrong"}.',
        openapi_url="/api/openapi.json",
        docs_url=None,  # Swagger's page and ReDoc's load programs from the internet
        redoc_url=None,
    )
    api.exception_handler(InputError)(_told)
    for name, form, summary in _DRAWINGS:
        api.get(
            f"/api/{name}",
            summary=summary,
            response_class=Response,
            responses={
                200: {"description": "A PNG with its recipe inside", "content": {"image/png": {}}},
                **{status: {"description": text} for status, text in _REFUSALS.items()},
            },
            openapi_extra={"parameters": [_MODEL, *map(_parameter, form.controls)]},
        )(_endpoint(form, shelf, line))

    @api.get("/api/models", summary="The models that can be asked for, the default first.")
    async def models() -> list[str]:
        return list(shelf.names)

    @api.get("/api/classes", summary="A model's classes, or those that a text finds.")
    def classes(request: Request, model: str = "", search: str = "") -> list[dict[str, Any]]:
        _query(request, ("model", "search"))
        EXPLORE["category"].check(search)  # not longer than any name
        names = _find(shelf, model).class_names
        found = search_classes(search, names) if search else range(len(names))
        return [{"index": index, "name": names[index]} for index in found]

    @api.get("/api/queue", summary="How many requests wait, and how many may.")
    async def queue() -> dict[str, int]:
        return {"waiting": line.length, "limit": line.limit}

    @api.get("/api", include_in_schema=False)
    async def reference() -> HTMLResponse:
        return HTMLResponse(reference_page(api.openapi(), shelf.names))

    # Gradio's part would answer it, and otherwise.
    @api.api_route("/api/{path:path}", methods=list(_METHODS), include_in_schema=False)
    async def nothing(request: Request, path: str) -> Response:
        if request.method != "GET":
            raise HTTPException(405, "all that is here is to be had by GET", {"Allow": "GET"})
        raise HTTPException(404, f"there is no /api/{path[:60]}; /api says what there is")

    return api


def _endpoint(form: Form, shelf: ModelShelf, line: Line) -> Callable[..., Any]:
    async def answer(request: Request) -> Response:
        model, settings = _read(form, request, shelf)
        recipe = await run_in_threadpool(_plan, shelf, model, settings)
        with line.join((model, recipe), functools.partial(draw_png, shelf, model, recipe)) as job:
            drawn = asyncio.wrap_future(job.future)
            drawn.add_done_callback(lambda f: f.cancelled() or f.exception())  # has been seen
            gone = asyncio.create_task(_until_gone(request))
            await asyncio.wait((drawn, gone), return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not drawn.done():
                raise HTTPException(_CLIENT_GONE)
            png = drawn.result()
        headers = {"Content-Disposition": f'inline; filename="{file_stem(recipe)}.png"'}
        return Response(png, media_type="image/png", headers=headers)

    return answer


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _read(form: Form, request: Request, shelf: ModelShelf) -> tuple[str, Settings]:
    """The model and the settings of a request.

    Raises:
        InputError: A name that is not known or there twice, or a value that its control has not.
    """
    query = _query(request, ["model", *(control.key for control in form.controls)])
    model = query.get("model", shelf.default)
    _check_offered(shelf, model)
    return model, from_query({"form": form.name, **query})


def _query(request: Request, known: Sequence[str]) -> dict[str, str]:
    """What follows the question mark.

    Raises:
        InputError: A name that is not known, or there twice.
    """
    given = request.query_params.multi_items()
    for name, _ in given:
        if name not in known:
            raise InputError(f"{name[:60]!r} is unknown here; there is {', '.join(known)}")
    query = dict(given)
    if len(query) < len(given):
        raise InputError("a name is given twice")
    return query


def _plan(shelf: ModelShelf, model: str, settings: Settings) -> SheetRecipe:
    gan = shelf.get(model)
    return settings.with_defaults(gan).recipe(gan)


def _find(shelf: ModelShelf, model: str) -> Gan:
    name = model or shelf.default
    _check_offered(shelf, name)
    return shelf.get(name)


def _check_offered(shelf: ModelShelf, model: str) -> None:
    try:
        shelf.check(model)
    except InputError as error:
        raise HTTPException(404, str(error)) from None


def _told(_request: Request, error: Exception) -> Response:
    is_ours = isinstance(error, ModelUnavailableError | FullLineError | AbandonedError)
    status = 503 if is_ours else 400
    headers = {"Retry-After": str(RETRY)} if isinstance(error, FullLineError) else None
    return JSONResponse({"detail": str(error)}, status, headers)


_MODEL = {
    "name": "model",
    "in": "query",
    "description": "Of those that /api/models lists.",
    "schema": {"type": "string"},
}


def _parameter(control: Control) -> dict[str, Any]:
    """A control as a parameter in OpenAPI's terms."""
    schema: dict[str, Any]
    match control:
        case Number():
            schema = {
                "type": "integer" if control.is_whole else "number",
                "minimum": control.low,
                "maximum": control.largest,
                "default": control.default,
            }
        case Category():
            schema = {"type": "string"}
        case Choice():
            words = [word for word, _ in control.choices]
            schema = {"type": "string", "enum": words, "default": control.default}
    info = "A name or an index." if isinstance(control, Category) else control.info
    description = f"{control.label}. {info}".strip()
    return {"name": control.key, "in": "query", "description": description, "schema": schema}
