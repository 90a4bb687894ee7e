"""The verbs that talk to a running server: `pull`, `ls`, `ps`, `show`, `run`, `stop`, `rm`, `cp`.

They are clients like others: they know the server by its Ollama door alone, and nothing of the rest of the house, but
for where the settings say that door is. So they start quickly; what is heavy (settings, tables, progress) is imported
where it is needed.

`commands` has the verbs as the command line sees them, `address` finds the server, `client` speaks HTTP, `tables`,
`progress` and `answers` write to the terminal, and `chat` is the conversation. They may print; only `cli` exits.
"""
