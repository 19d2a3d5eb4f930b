-- wrk asks a proxy: the request line holds the whole URL. To be given behind wrk's own URL, which is the proxy's:
--
--   wrk -s bench/absolute.lua http://PROXY -- http://ORIGIN/PATH [close]
--
-- A path in the place of the URL makes plain requests (to reverse proxies). `close` asks for the end of the connection with
-- each request. The last line that it prints holds key=value pairs for scripts; any failed request makes it say FAILED.

function init(args)
   wrk.path = args[1]
   wrk.headers["Host"] = string.match(args[1], "^http://([^/]+)") or wrk.headers["Host"]
   if args[2] == "close" then
      wrk.headers["Connection"] = "close"
   end
end

function done(summary, latency, requests)
   local e = summary.errors
   local errors = e.connect + e.read + e.write + e.status + e.timeout
   if errors > 0 or summary.requests == 0 then
      print(string.format("FAILED connect=%d read=%d write=%d status=%d timeout=%d",
         e.connect, e.read, e.write, e.status, e.timeout))
   end
   print(string.format("requests=%d errors=%d ops_s=%.0f p50_us=%d p90_us=%d p99_us=%d max_us=%d",
      summary.requests, errors, summary.requests / summary.duration * 1e6,
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
