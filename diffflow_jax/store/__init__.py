"""Files that last: on a disk or in a bucket, checked, and nobody else's."""
