"""What Alembic runs for each command: the migrations, on the connection that it was given."""

from alembic import context

from tuner.study.migrations import NOTES

context.configure(connection=context.config.attributes["connection"], version_table=NOTES)
with context.begin_transaction():
    context.run_migrations()
