-- since: 18
-- Virtual generated columns, which 18 has: nothing of them is stored.
CREATE TABLE g (a int, b int GENERATED ALWAYS AS (a * 2), c text GENERATED ALWAYS AS ('x' || a) STORED);
INSERT INTO g (a) SELECT generate_series(1, 20);
