"""How a command can end."""

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_STOPPED = range(5)

#: Exit code -> the summary's verdict.
VERDICTS = ("succeeded", "failed", "refused", "unreachable", "stopped")
