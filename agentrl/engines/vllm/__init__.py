"""Agents sampled by vLLM servers over HTTP, with token ids both ways."""
