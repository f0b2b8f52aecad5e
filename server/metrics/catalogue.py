"""The metrics by name: what each is and tells. What is not here cannot be exposed; docs/operations.md has each row."""

from typing import NamedTuple


class Metric(NamedTuple):
    """Prometheus' type, the labels besides `worker`, and a sentence."""

    type: str
    labels: tuple[str, ...]
    help: str


METRICS = {
    "gateway_info": Metric("gauge", ("version", "exchange", "profile", "epoch"), "What runs; always 1."),
    "gateway_worker_up": Metric("gauge", (), "1 if the worker answered this scrape, 0 if not."),
    "gateway_uptime_seconds": Metric("gauge", (), "How long the worker has been there."),
    "gateway_draining": Metric("gauge", (), "1 while the worker is on its way out."),
    "gateway_requests_total": Metric("counter", ("route", "status"), "Requests answered, sockets' upgrades left out."),
    "gateway_request_duration_seconds": Metric("histogram", ("route",), "How long requests took to answer."),
    "gateway_requests_in_progress": Metric("gauge", (), "Requests being answered."),
    "gateway_requests_limit": Metric("gauge", (), "How many requests may be in progress."),
    "gateway_sockets": Metric("gauge", (), "Open sockets, those included that have not authenticated yet."),
    "gateway_sockets_limit": Metric("gauge", (), "How many sockets may be open."),
    "gateway_sessions": Metric("gauge", (), "Open sockets that have authenticated."),
    "gateway_sockets_opened_total": Metric("counter", (), "Sockets that were upgraded."),
    "gateway_sockets_closed_total": Metric("counter", ("code",), "Sockets that ended; 4408 was too slow."),
    "gateway_subscriptions": Metric("gauge", ("channel", "pace"), "Subscriptions by kind of channel."),
    "gateway_frames_sent_total": Metric("counter", (), "Frames written to sockets, pings and closes left out."),
    "gateway_frames_conflated_total": Metric("counter", (), "Frames that a newer one replaced: the reader was slow."),
    "gateway_sockets_buffered_bytes": Metric("gauge", (), "Bytes written to sockets that have not left the process."),
    "gateway_upstream_calls_total": Metric("counter", ("endpoint", "outcome"), "Calls to Bybit that were made."),
    "gateway_upstream_refused_total": Metric(
        "counter", ("endpoint", "reason"), "Calls that breaker or budget forbade."
    ),
    "gateway_upstream_call_duration_seconds": Metric("histogram", ("endpoint",), "How long calls to Bybit took."),
    "gateway_upstream_in_flight": Metric("gauge", ("endpoint",), "Threads busy with calls."),
    "gateway_upstream_queue": Metric("gauge", ("endpoint",), "Calls waiting for a thread."),
    "gateway_upstream_threads": Metric("gauge", ("endpoint",), "Threads for calls."),
    "gateway_breaker_state": Metric("gauge", ("scope", "state"), "1 for the state that the breaker is in."),
    "gateway_budget_left": Metric("gauge", ("window",), "Calls to Bybit that are allowed at once."),
    "gateway_clock_offset_seconds": Metric("gauge", (), "What our clock lacks to Bybit's, once measured."),
    "gateway_key_expiry_timestamp_seconds": Metric("gauge", (), "When the key expires, in Unix time."),
    "gateway_topics": Metric("gauge", ("kind",), "Topics that are followed."),
    "gateway_topics_failing": Metric("gauge", ("kind",), "Topics whose last refresh failed."),
    "gateway_topics_kept": Metric("gauge", ("kind",), "Topics that a stream keeps."),
    "gateway_topics_evicted_total": Metric("counter", (), "Topics forgotten, for nobody asked."),
    "gateway_reading_age_seconds": Metric("gauge", ("kind", "which"), "Ages of readings wanted of late."),
    "gateway_symbol_reading_age_seconds": Metric(
        "gauge", ("kind", "symbol", "interval"), "Age of each reading, with metrics.symbols."
    ),
    "gateway_stream_lines": Metric("gauge", ("stream",), "Stream connections that are up."),
    "gateway_stream_channels": Metric("gauge", ("stream",), "Channels wanted of streams."),
    "gateway_stream_channels_in_sync": Metric("gauge", ("stream",), "Channels in sync."),
    "gateway_stream_connections_total": Metric("counter", ("stream",), "Attempts to connect."),
    "gateway_stream_reconnects_total": Metric("counter", ("stream",), "Connections made again after a failure."),
    "gateway_stream_messages_total": Metric("counter", ("stream",), "Messages that came."),
    "gateway_stream_gaps_total": Metric("counter", ("stream",), "Deltas that did not follow."),
    "gateway_stream_garbage_total": Metric("counter", ("stream",), "Connections ended for what could not be believed."),
    "gateway_stream_refused_total": Metric("counter", ("stream",), "Subscriptions that Bybit refused."),
    "gateway_stream_silences_total": Metric("counter", ("stream",), "Connections given up for their silence."),
    "gateway_candle_topics": Metric("gauge", (), "Kline topics held."),
    "gateway_candles": Metric("gauge", (), "Candles held."),
    "gateway_candle_bytes": Metric("gauge", (), "Bytes that the candles take."),
    "gateway_candle_fetches_total": Metric("counter", ("reason",), "Calls for candles, by why."),
    "gateway_candle_contradictions_total": Metric("counter", (), "Calls that found closed candles changed."),
    "gateway_loop_lag_seconds": Metric("histogram", (), "How long the event loop took to answer."),
    "gateway_loop_blocked_total": Metric("counter", (), "Times that the event loop was blocked for 100 ms or more."),
    "process_cpu_seconds_total": Metric("counter", (), "Processor time, user's and system's."),
    "process_virtual_memory_bytes": Metric("gauge", (), "Virtual memory."),
    "process_resident_memory_bytes": Metric("gauge", (), "Resident memory."),
    "process_start_time_seconds": Metric("gauge", (), "When the process started, in Unix time."),
    "process_open_fds": Metric("gauge", (), "Descriptors in use."),
    "process_max_fds": Metric("gauge", (), "Descriptors that may be in use."),
}
