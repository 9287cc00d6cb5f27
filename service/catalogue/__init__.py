"""A folder of photos to files that a marketplace takes, and a page that says what is left to do.

table      names.csv: which product each photo shows
identify   the same from file and folder names; numbers, angles and the final file names
items      photos to work for the batch's machinery; places: which files are the catalogue's own
making     one photo to its pictures: made, checked under their final names, judged, thumbnails
records    what the journal says of each picture; totals
report     report.json, report.csv; page: report.html
running    one run from its plan to its report
"""
