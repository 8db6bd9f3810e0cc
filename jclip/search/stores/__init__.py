"""Vector databases that hold copies of indexes, for search by other machines: pgvector and Milvus."""
