"""What the proxy is told, and what it is held to."""

LOOPS = 2
# The free lists of each loop keep 16 rings of 32 KiB, 4 of 128 KiB and 64 of 2 KiB, and the cache of names and the verdicts on
# logins 256 KiB each at most; they fill up as chance has it. The rest is the allocator's.
FREE_LISTS_KIB = LOOPS * (512 + 512 + 128)
MEMORY_SLACK_KIB = FREE_LISTS_KIB + LOOPS * 512 + 1024
# From the first quarter of a run to its last, in the median: what grows a little with each minute.
MEMORY_DRIFT_KIB = 512
# Some seconds after a crowd has left, its tables and the free lists have been given back. What the allocator cannot give back, because
# a small piece of it is in use or kept for the next who asks, stays.
CROWD_SLACK_KIB = 3584
GIVEN_BACK_S = 15
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
