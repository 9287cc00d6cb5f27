"""Many photos: a folder, a table or a booth's drop folder to product pictures, so that it can be stopped at any point.

work       what one photo is asked for, and whether that was done before
sources    folders, globs and photos to work; tables: CSV and Parquet
outfolder  where a batch keeps its things, and the lock; names: which file belongs to which photo, for good
journal    one durable line for each photo
predictor  one photo's three steps, the same on threads and as a Ray actor
pipeline   the steps on threads, with bounded queues and a budget of pixels; on_ray: the same on a cluster
watch      a drop folder: which files are complete, and where they go when done
running    one run from its plan to its summary; progress, report: what people see of it
"""
