"""Annotation mode: masks over a folder of photos, kept as PNG files and COCO records."""
