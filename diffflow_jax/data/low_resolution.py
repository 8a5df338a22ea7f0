"""Images told of by a smaller version of themselves, and digits by their style.

    smaller     "low": the means of squares of the image, which is `factor`
                times as large; what super-resolution starts from
    styled      "style": how much ink, how slanted; beside the label
"""
