"""What the handlers find in the application, by typed keys."""

from aiohttp import web

from ..access.rights import Rights
from ..bybit.client import BybitClient
from ..bybit.streams import Streams
from ..market.answers import Answering
from ..market.checking import Checks
from ..market.feeds import Feeds
from ..market.following import Following
from ..market.history import History
from ..market.symbols import Symbols
from ..metrics.requests import Requests
from ..processes.neighbours import Neighbours
from ..realtime.channels import Channels
from ..realtime.hub import Hub
from ..settings import Settings
from ..watchdog import Watchdog
from .admission import Admission
from .auth import Access
from .load import Load
from .operations import SocketOperations
from .visitors import Visitors

SETTINGS = web.AppKey("SETTINGS", Settings)
CLIENT = web.AppKey("CLIENT", BybitClient)
FEEDS = web.AppKey("FEEDS", Feeds)
SYMBOLS = web.AppKey("SYMBOLS", Symbols)
CHANNELS = web.AppKey("CHANNELS", Channels)
HISTORY = web.AppKey("HISTORY", History)
ANSWERING = web.AppKey("ANSWERING", Answering)
CHECKS = web.AppKey("CHECKS", Checks)
FOLLOWING = web.AppKey("FOLLOWING", Following)
STREAMS: web.AppKey[Streams | None] = web.AppKey("STREAMS")
HUB = web.AppKey("HUB", Hub)
OPERATIONS = web.AppKey("OPERATIONS", SocketOperations)
ACCESS = web.AppKey("ACCESS", Access)
ADMISSION = web.AppKey("ADMISSION", Admission)
VISITORS = web.AppKey("VISITORS", Visitors)
LOAD = web.AppKey("LOAD", Load)
REQUESTS = web.AppKey("REQUESTS", Requests)
WATCHDOG = web.AppKey("WATCHDOG", Watchdog)
NEIGHBOURS: web.AppKey[Neighbours | None] = web.AppKey("NEIGHBOURS")
RIGHTS = web.RequestKey("RIGHTS", Rights)
"""What the request's token may read, once it is admitted."""
