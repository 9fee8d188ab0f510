"""The HTTP API for programs: each form of the page at an address of its own.

    GET /api/sample?num=10&truncation=0.4&seed=0&category=banana    a PNG with its provenance inside

Gradio has an API, too, but it answers a mistake with status 200 and an event. This one keeps to
HTTP, and a line of curl can use it.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from jinja2 import Template
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from biggan._version import __version__
from biggan.classes import class_choices, matching_classes, search_classes
from biggan.demo import forms
from biggan.demo.drawing import enlarged
from biggan.demo.renderer import Renderer
from biggan.errors import InputError, quoted
from biggan.weights.load import search_models

_MOST_ELSEWHERE = 5  # classes of another model that a search lists
_REFERENCE = Template(
    Path(__file__).with_name("api.html").read_text(encoding="utf-8"),
    autoescape=True,
    trim_blocks=True,
)
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "A PNG that contains its provenance", "content": {"image/png": {}}},
    400: {
        "description": "A value out of range, an unknown name, a class that the model does not have"
    },
    404: {"description": "No such model"},
    429: {"description": "Too many requests from this client"},
    503: {"description": "Too many requests wait, or a file cannot be read or written"},
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_CLIENT_GONE = 499  # no client reads it


class _Search(BaseModel, extra="forbid"):
    model: str | None = None
    search: Annotated[str, Field(max_length=1000)] = ""


def build_api(renderer: Renderer) -> FastAPI:
    """The addresses below `/api`."""
    models = renderer.models
    api = FastAPI(
        title="biggan",
        version=__version__,
        description="Images of a class-conditional GAN. An error has a status of 400 or more and "
        'the body {"detail": "one line that names the mistake"}.',
        openapi_url="/api/openapi.json",
        docs_url=None,  # FastAPI's own page loads its scripts from the internet
        redoc_url=None,
        responses={"default": {"description": "Any other error"}},
        dependencies=[Depends(_refuse_repeated_names)],
        exception_handlers={InputError: _refuse, RequestValidationError: _refuse_parameters},
    )
    for form in forms.FORMS:
        api.get(
            f"/api/{form.endpoint}",
            summary=form.summary,
            response_class=Response,
            responses=_ANSWERS,
        )(_endpoint(form, renderer))

    @api.get("/api/models", summary="The available models, the default first.")
    async def names() -> list[str]:
        return list(models.ready)

    @api.get("/api/classes", summary="The classes of a model, or those that match a text.")
    def classes(query: Annotated[_Search, Query()]) -> list[dict[str, Any]]:
        names = models.get(query.model or models.default).class_names
        found = search_classes(query.search, names) if query.search else range(len(names))
        return [{"index": index, "name": names[index]} for index in found]

    @api.get(
        "/api/classes/find",
        summary="The classes that match a text, as the page lists them; if none has it in its "
        "name, another model with such classes, at most five.",
    )
    def find(query: Annotated[_Search, Query()]) -> dict[str, Any]:
        model, text = query.model or models.default, query.search
        names = models.get(model).class_names
        entries, found = class_choices(names), matching_classes(text, names)
        similar = found or search_classes(text, names)
        # A misspelling of a class here is likelier than a part of a name elsewhere.
        elsewhere = {} if found else search_models(text, whole_names=bool(similar))
        name, other = models.nearest(elsewhere), None
        if name:
            other = {"model": name, "classes": elsewhere[name][:_MOST_ELSEWHERE]}
        return {"classes": [entries[index] for index in similar], "other": other}

    @api.get("/api/queue", summary="The number of waiting requests, and its limit.")
    async def waiting() -> dict[str, int]:
        return {"waiting": renderer.length, "limit": renderer.limit}

    @api.get("/api/docs", include_in_schema=False, response_class=HTMLResponse)
    async def reference() -> str:
        return _REFERENCE.render(api.openapi())

    @api.get("/api", include_in_schema=False)
    async def to_reference() -> RedirectResponse:
        return RedirectResponse(f"{api.root_path}/api/docs")

    # Gradio's application would answer these, and otherwise.
    @api.api_route("/api/{path:path}", methods=list(_METHODS), include_in_schema=False)
    async def nothing(request: Request, path: str) -> None:
        if request.method != "GET":
            raise HTTPException(405, "only GET is allowed here", {"Allow": "GET"})
        raise HTTPException(404, f"there is no /api/{path[:60]}; see /api/docs")

    return api


def _endpoint(form: forms.Form, renderer: Renderer) -> Any:
    models = renderer.models
    model_field = Field(models.default, description="A name that /api/models lists.")
    controls: dict[str, Any] = {control.key: _parameter(control) for control in form.controls}
    enlarge = Field(1, ge=1, le=8, description="Repeats each pixel so often in both directions.")
    fields: dict[str, Any] = {"model": (str, model_field), **controls, "enlarge": (int, enlarge)}
    parameters = create_model(form.endpoint, __config__=ConfigDict(extra="forbid"), **fields)

    async def draw(request: Request, query: Annotated[parameters, Query()]) -> Response:  # type: ignore[valid-type]
        values = query.model_dump(exclude_unset=True)  # type: ignore[attr-defined]
        model, factor = values.pop("model", models.default), values.pop("enlarge", 1)
        made = await run_in_threadpool(lambda: form.plan(models.get(model), **values))
        with renderer.join(model, made) as job:
            drawn = asyncio.wrap_future(job.future)
            drawn.add_done_callback(lambda f: f.cancelled() or f.exception())  # has been seen
            gone = asyncio.create_task(_until_gone(request))
            await asyncio.wait((drawn, gone), return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not drawn.done():
                raise HTTPException(_CLIENT_GONE)
            drawn.result()
        file = job.files[0]
        if factor > 1:
            contents = await run_in_threadpool(enlarged, file, factor)
            about = {"Content-Disposition": f'inline; filename="{file.stem}-{factor}x.png"'}
            return Response(contents, media_type="image/png", headers=about)
        return FileResponse(
            file, media_type="image/png", filename=file.name, content_disposition_type="inline"
        )

    return draw


def _parameter(control: forms.Control) -> tuple[Any, Any]:
    """The type and the default of a control's parameter; its own check gives the messages."""
    about: dict[str, Any] = {"title": control.label, "description": control.info or None}
    kind: Any = str
    match control:
        case forms.Number():
            kind = int if control.is_whole else float
            about |= {"ge": control.low, "le": control.largest}
        case forms.Category():
            kind = str | None
        case forms.Choice():
            about["json_schema_extra"] = {"enum": [word for word, _ in control.choices]}
    # FastAPI documents what stands before the validator, which comes first and checks it all.
    annotation = Annotated[kind, Field(**about), BeforeValidator(control.check)]
    return annotation, forms.default_value(control, ())


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refuse_repeated_names(request: Request) -> None:
    if len(request.query_params) < len(request.query_params.multi_items()):
        raise InputError("a name is given twice")


async def _refuse(_request: Request, error: Exception) -> JSONResponse:
    headers = {"Retry-After": str(error.retry_after)} if hasattr(error, "retry_after") else None
    return JSONResponse({"detail": str(error)}, getattr(error, "status", 400), headers)


async def _refuse_parameters(_request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    name, cause = quoted(str(first["loc"][-1])), first.get("ctx", {}).get("error")
    if first["type"] == "extra_forbidden":
        detail = f"{name} is unknown; see /api/docs"
    else:
        detail = str(cause) if isinstance(cause, InputError) else f"{name}: {first['msg']}"
    return JSONResponse({"detail": detail}, 400)
