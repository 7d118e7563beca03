"""One stage per statistic: each streams over the rows that it wants and leaves Parquet parts."""
