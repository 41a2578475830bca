"""Where the time of a run goes: its phases, the first unit's stages, the processes that the command has started."""
