"""What the proxy is told, and what it is held to."""

LOOPS = 2
# The free list of each loop keeps 16 rings of 32 KiB and 4 of 128 KiB, and the cache of names and the verdicts on logins 256
# KiB each at most; they fill up as chance has it. The rest is the allocator's.
MEMORY_SLACK_KIB = LOOPS * (1024 + 512) + 1024
# From the first quarter of a run to its last, in the median: what grows a little with each minute.
MEMORY_DRIFT_KIB = 512
# Pipes of the bulk path that a loop may keep for later.
PIPES_MAX = LOOPS * 2 * 32
IDLE_WINDOW_S = 2
IDLE_CPU_MS = 4
IDLE_WAKEUPS = 20
REST_S = 30  # it must have come to rest by then
LAG_MS = 1500  # more, and silence was this program's fault

HEAD_S, RESOLVE_S, DIAL_S, RESPONSE_S, KEEPALIVE_S, IDLE_S, HALF_OPEN_S, GRACE_S = 3, 2, 3, 3, 3, 6, 3, 5
MAX_SESSIONS = 9500

ROUND_S, MIX_S, WARM_UP_S = 60, 44, 6
CLIENTS = 48
HELD = 40
CROWD = 9000
CROWD_AT_ONCE = 128
ORIGINS = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]
USERS = {"alice": "wonderland", "carol": "wheel"}
