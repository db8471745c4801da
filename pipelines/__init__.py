"""The product: one Prefect flow over all stages, and the commands around it."""
