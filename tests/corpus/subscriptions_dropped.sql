-- DROP SUBSCRIPTION of 15 leaves its comment behind: nobody dumps it, and nobody needs it.
CREATE SUBSCRIPTION subscriptions_dropped CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE);
COMMENT ON SUBSCRIPTION subscriptions_dropped IS 'x';
DROP SUBSCRIPTION subscriptions_dropped;
