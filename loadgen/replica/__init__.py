"""The simulated replica: the engine of ``loadgen.engine`` behind an OpenAI-compatible server."""
