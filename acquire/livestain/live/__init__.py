"""What people look at while a run goes on, and after it. Everything here only reads the run folder."""
