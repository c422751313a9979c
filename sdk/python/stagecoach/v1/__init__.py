"""The contract's generated code; make generate writes it from sdk/proto/v1."""
