-- How full the window of the key is, when its oldest request leaves it, and what the time is. As in take.sql.
WITH time(now) AS (
  SELECT max(
    coalesce(?2, CAST(unixepoch('subsec') * 1000 AS INTEGER)),
    coalesce((SELECT max(at) FROM taken WHERE key = ?1), 0)
  )
)
SELECT count(*) AS taken, coalesce(min(at), now) + ?3 - now AS oldest_leaves_in
FROM time LEFT JOIN taken ON key = ?1 AND at > now - ?3
