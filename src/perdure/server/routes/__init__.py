"""One file per noun: each turns a request into a question to the engine and its answer into a reply."""
