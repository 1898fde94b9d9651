-- Transaction :n. What it makes of a state depends on nothing but that state and :n.
UPDATE progress SET n = :n;
UPDATE accounts SET balance = balance + (:n * 37 + id * 11) % 201 - 100, seen = :n
    WHERE id % 9 = :n % 9;
INSERT INTO events VALUES(:n, printf('%08x: event %d', (:n * 2654435761) % 4294967296, :n));
DELETE FROM events WHERE n <= :n - 300;
-- Now and then a document of many pages.
INSERT OR REPLACE INTO documents
    SELECT :n % 10, replace(hex(zeroblob(500 + :n * 97 % 9000)), '00', printf('%04x', :n % 65536))
    WHERE :n % 11 = 0;
-- And a transaction that does not fit the cache.
DELETE FROM bulk WHERE :n % 41 = 0;
INSERT INTO bulk
    WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 600)
    SELECT i, printf('%0150d', :n * 1000 + i) FROM c WHERE :n % 41 = 0
