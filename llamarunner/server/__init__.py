"""The doors: HTTP in, HTTP out. aiohttp lives here and nowhere else in the server process.

* `services`   what every handler may use, and the keys under which an application carries it.
* `listener`   one door: routes, guards, connection settings, sockets.
* `connection` one client's connection: limits, and what is not HTTP.
* `guards`     what every request passes: record, errors in the caller's language, hygiene, Host, Origin, key, limits.
* `crowd`      how many connections may be open.
* `admission`  the questions of those guards that need no HTTP: who may come in.
* `forwarded`  which address a client has, also behind proxies.
* `body`       request bodies with a size and a deadline.
* `upload`     forms with a file, which goes to disk as it comes; `spool` is where it lies.
* `audio_form` the fields of such a form.
* `resolve`    which model a request means; `lmstudio_resolve` is how LM Studio sees it.
* `calls`      what is asked of it, from a client's document.
* `relay`      the only copier: bytes from a model to a client.
* `upstream`   its far side: one request to a model's process, and what can go wrong there. It makes
               every call safe for the process.
* `client`     the HTTP client under it, which is on the way of every token; `http1` reads the responses, pure.
* `watch`      its clock: one timer for each exchange, which ends what has fallen silent.
* `drain`      the exchanges under way and the guests, and their end when the server stops.
* `remote_images` images that chats name by URL, fetched or refused.
* `figures`    what is measured of processes and the machine.
* `record`     what is known of one request, told once when it is over.
* `metrics`    what is counted; `children` has the series of the models' processes.
* `query`      switches and numbers behind the question mark.
* `channel`    the websocket; `channel_chat` is one chat, `channel_news` what it subscribes to, `channel_messages` their
               types and schema; `frames` bounds how those come.
* `sdk_api`    the sockets of LM Studio's SDKs and who may come in; `sdk_socket` is one of them, `sdk_guests` its
               client's files, `sdk_endpoints` what the endpoints in the other `sdk_…` files have in common.
* `labels`     names that clients give to instances; `tap` lets listeners hear what models are asked.
* `…_api`      the handlers, one file for each language.
* `openapi`    what they do, described for programs; `operation` is one path in it.

The way of a request: listener → guards → an api's handler → `body.read` → `call_of` → `relay.forward` → lease →
model. A failure is raised as one of our errors, wherever it happens, and said by the guards in the caller's language;
once an answer has begun, the relay says it as the last event of the stream. A client's hang-up is a cancellation that
runs down the same line, and closes the connection to the model.
"""
