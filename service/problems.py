"""Every refusal of the HTTP service: one exception, one catalogue of stable codes, two ways to write it down.

The native routes answer `application/problem+json` (RFC 9457); the routes that follow remove.bg answer its `errors`
envelope; the Open Inference Protocol's answer its `error` string. `render` picks by path, so middlewares and routes
raise the same `ServiceProblem` everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from boothsam.runtime.errors import (
    BoothsamError,
    CameraMoved,
    ImageError,
    NothingFound,
    OptionError,
    OutputError,
    PromptError,
)
from boothsam.service.presets.errors import PresetError

# code -> (HTTP status, title). Codes are part of the interface: one is never renamed, and never changes its meaning.
catalogue: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "bad_host": (400, "Unknown host name"),
        "missing_image": (400, "No image was sent"),
        "url_not_supported": (400, "Images are not fetched from URLs"),
        "bad_request": (400, "Malformed request"),
        "unauthorized": (401, "Token missing or wrong"),
        "bad_origin": (403, "Request from a foreign web page"),
        "not_found": (404, "No such resource"),
        "embedding_not_found": (404, "No such embedding"),
        "no_plate": (404, "No picture of the empty booth"),
        "method_not_allowed": (405, "Method not allowed"),
        "header_timeout": (408, "The headers arrived too slowly"),
        "body_timeout": (408, "The body arrived too slowly"),
        "conflict": (409, "The idempotency key was used for another photo"),
        "photo_not_kept": (409, "The photo was not kept"),
        "photo_changed": (409, "The photo was replaced by another one"),
        "category_in_use": (409, "Objects are of this category"),
        "plate_damaged": (409, "The stored plate cannot be used"),
        "not_forwarded": (409, "The capture is still to be forwarded"),
        "too_large": (413, "Upload too large"),
        "too_many_pixels": (413, "Image has too many pixels"),
        "unsupported_media": (415, "Unsupported format"),
        "broken_image": (422, "Damaged image"),
        "decode_timeout": (422, "Decoding the image took too long"),
        "invalid_prompt": (422, "Invalid prompt"),
        "invalid_field": (422, "Invalid value"),
        "unknown_field": (422, "Unknown field"),
        "camera_moved": (422, "The photo does not show the booth of the plate"),
        "nothing_found": (422, "No product found"),
        "invalid_gtin": (422, "Invalid GTIN"),
        "too_many_masks": (422, "Too many masks pass the thresholds"),
        "preset_failed": (422, "The picture cannot keep the preset's rules"),
        "queue_full": (429, "Too many requests wait already"),
        "client_gone": (499, "The client closed the connection"),
        "internal": (500, "Internal error"),
        "connections_full": (503, "Too many connections are open"),
        "deadline": (503, "Waited too long for a free place"),
        "everything_timeout": (503, "Finding everything took too long"),
        "draining": (503, "The service is shutting down"),
        "not_ready": (503, "The service is not ready"),
        "codes_unavailable": (503, "Barcodes cannot be read here"),
        "plate_not_stored": (503, "The plate cannot be stored at present"),
        "storage_failed": (503, "Captures cannot be stored at present"),
        "annotations_failed": (503, "Annotations cannot be stored at present"),
        "disk_low": (507, "Too little disk space"),
    }
)
_REMOVEBG = "/v1.0/"
_INFERENCE_PROTOCOL = "/v2"
# remove.bg knows few statuses, and its clients compare with them: the code stays ours and tells the rest.
_REMOVEBG_STATUS = {401: 403, 408: 400, 413: 400, 415: 400, 422: 400}
_CLI_OPTION = re.compile(r"--([a-z][a-z-]*)")


class ServiceProblem(Exception):
    """A refusal with a stable code.

    Attributes:
        status: HTTP status. code: key of `catalogue`. title: the same for every occurrence of the code.
        detail: what was found and what was expected, for people. hint: what mends it.
        headers: to send along, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        hint: str = "",
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.status, self.code, self.title, self.detail, self.hint = status, code, title, detail, hint
        self.headers = dict(headers)

    def body(self, request_id: str) -> dict[str, Any]:
        """RFC 9457's members, with the code, the hint and the request's id as `instance`."""
        return {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "hint": self.hint,
            "instance": request_id,
        }


def problem(
    code: str,
    detail: str,
    hint: str = "",
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> ServiceProblem:
    """A ServiceProblem with status and title from the catalogue. Raises KeyError for a code that is not in it."""
    status, title = catalogue[code]
    return ServiceProblem(status, code, title, detail, hint, headers)


def from_error(error: Exception) -> ServiceProblem:
    """What the runtime raised, as a problem; whatever is nobody's mistake but ours is `internal` and tells nothing."""
    codes: tuple[tuple[type[Exception], str], ...] = (
        (PresetError, "preset_failed"),
        (NothingFound, "nothing_found"),
        (CameraMoved, "camera_moved"),
        (PromptError, "invalid_prompt"),
        (ImageError, "broken_image"),
        (OptionError, "invalid_field"),
        (OutputError, "invalid_field"),
    )
    for kind, code in codes:
        if isinstance(error, kind) and isinstance(error, BoothsamError):
            headers: dict[str, str] = {}
            if isinstance(error, PresetError):  # for pages that say it in their visitors' language
                headers["X-Preset"] = ",".join(dict.fromkeys(finding.rule for finding in error.report.failed))
            return problem(code, _as_fields(error.message), _as_fields(error.hint or ""), headers=headers)
    return problem("internal", "an unexpected error; it was logged under this request's id", "boothsam doctor --report")


def _as_fields(text: str) -> str:
    """The command line's options as the form fields they are here: --fill-holes -> fill_holes, --point -> points."""
    return _CLI_OPTION.sub(lambda option: {"point": "points"}.get(option[1], option[1].replace("-", "_")), text)


def render(found: ServiceProblem, scope: Mapping[str, Any], request_id: str = "") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body, in the form that the path's clients expect.

    scope: the ASGI scope; only `path` is looked at (never the URL that the Host header is part of).
    """
    path = str(scope.get("path", ""))
    status = found.status
    content: dict[str, Any]
    if path.startswith(_REMOVEBG):
        detail = found.detail + (f"; hint: {found.hint}" if found.hint else "")
        content = {"errors": [{"title": found.title, "code": found.code, "detail": detail}]}
        status, kind = _REMOVEBG_STATUS.get(status, status), "application/json"
    elif path == _INFERENCE_PROTOCOL or path.startswith(f"{_INFERENCE_PROTOCOL}/"):
        content, kind = {"error": f"{found.code}: {found.detail}"}, "application/json"
    else:
        content, kind = found.body(request_id), "application/problem+json"
    body = json.dumps(content, allow_nan=False).encode()
    headers = {"content-type": kind, "content-length": str(len(body)), "cache-control": "no-store"}
    if request_id:
        headers["x-request-id"] = request_id
    return status, headers | {name.lower(): value for name, value in found.headers.items()}, body
