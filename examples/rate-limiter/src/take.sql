-- ?1 key, ?2 time in milliseconds or NULL for the primary's own, ?3 window in milliseconds, ?4 limit.
--
-- Time never goes back for a key: should a primary's clock be behind that of the one before it, requests count as
-- made when the newest was, and leave the window later for it.
WITH time(now) AS (
  SELECT max(
    coalesce(?2, CAST(unixepoch('subsec') * 1000 AS INTEGER)),
    coalesce((SELECT max(at) FROM taken WHERE key = ?1), 0)
  )
)
INSERT INTO taken (key, at)
SELECT ?1, now FROM time
WHERE (SELECT count(*) FROM taken WHERE key = ?1 AND at > now - ?3) < ?4
RETURNING at
