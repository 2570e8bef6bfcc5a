"""The agents: values in, values out. One agent a file; prompts beside them."""
