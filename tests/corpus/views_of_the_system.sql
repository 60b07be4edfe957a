-- alone: dump 40
-- alone: online 40
-- check: buffers_backend
-- until: 16
-- A view of what the server tells, of which the target has not every column.
CREATE VIEW v AS SELECT buffers_backend FROM pg_stat_bgwriter;
