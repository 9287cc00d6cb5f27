"""The bundled starter model: see docs/starter-model.md and NOTICE.md."""
