"""The site: executed notebooks, figures, tables and what follows from the code, as static HTML.

`build.build` makes it. Every page is a function of the repository's files, none needs a script or
a network, and all links are relative, so that the folder works wherever it lies.
"""
