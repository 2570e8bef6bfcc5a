"""Replies: what we write to customers without a model, in the languages we write."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType

from agents.claims import plain_name
from contracts.facts import OrderFacts

_MAX_LISTED = 10

_TEXTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "en": {
            "found": "Your order {order_id} ({items}) is {status}. {parcels}",
            "parcels": "Tracking: {tracking}.",
            "no_parcels": "No parcel has been sent for it.",
            "which_order": "Which of your orders do you mean? Please answer with its number.",
            "candidate": "- {order_id}, {status}: {items}",
            "more": "- and {count} more",
            "not_found": "We could not find that order among yours. Please check the order number, and write from the "
            "e-mail address you ordered with.",
            "unknown_customer": "We could not find a customer with this e-mail address. Please write from the address "
            "you ordered with, and tell us the order number.",
            "unverified": "We can answer this only to the owner of the account, and could not make sure that this "
            "message comes from them. Please sign in and write to us from there.",
            "no_orders": "There is no order under your e-mail address. If you ordered with another address, please "
            "write to us from that one.",
            "colleague": "Thank you for your message. A colleague will look into it and write to you.",
            "still_waiting": "Thank you for your patience. Your message is still with our team; we will write to you.",
            "closed_unanswered": "We are sorry that we have not managed to deal with your message. If it still "
            "matters to you, please write to us again.",
            "out_of_scope": "Thank you for your message. We can help with orders, deliveries, returns, payments and "
            "accounts at our shop, and cannot help with this request.",
            "pending": "pending",
            "processed": "processed",
            "delivered": "delivered",
            "cancelled": "cancelled",
            "return requested": "delivered, with a return under way",
            "exchange requested": "delivered, with an exchange under way",
        },
        "de": {
            "found": "Ihre Bestellung {order_id} ({items}): {status}. {parcels}",
            "parcels": "Sendungsnummer: {tracking}.",
            "no_parcels": "Dazu wurde kein Paket versandt.",
            "which_order": "Welche Ihrer Bestellungen meinen Sie? Bitte antworten Sie mit der Bestellnummer.",
            "candidate": "- {order_id}, {status}: {items}",
            "more": "- und {count} weitere",
            "not_found": "Diese Bestellung haben wir unter Ihren nicht gefunden. Bitte prüfen Sie die Bestellnummer "
            "und schreiben Sie von der E-Mail-Adresse, mit der Sie bestellt haben.",
            "unknown_customer": "Unter dieser E-Mail-Adresse kennen wir niemanden. Bitte schreiben Sie von der "
            "Adresse, mit der Sie bestellt haben, und nennen Sie die Bestellnummer.",
            "unverified": "Das können wir nur der Person beantworten, der das Konto gehört, und wir konnten nicht "
            "prüfen, ob diese Nachricht von ihr kommt. Bitte melden Sie sich an und schreiben Sie uns von dort.",
            "no_orders": "Unter Ihrer E-Mail-Adresse liegt keine Bestellung vor. Falls Sie mit einer anderen Adresse "
            "bestellt haben, schreiben Sie uns bitte von dort.",
            "colleague": "Vielen Dank für Ihre Nachricht. Eine Kollegin oder ein Kollege meldet sich bei Ihnen.",
            "still_waiting": "Danke für Ihre Geduld. Ihre Nachricht liegt noch bei unserem Team; wir melden uns.",
            "closed_unanswered": "Leider sind wir nicht dazu gekommen, Ihre Nachricht zu bearbeiten. Falls sie noch "
            "wichtig für Sie ist, schreiben Sie uns bitte noch einmal.",
            "out_of_scope": "Vielen Dank für Ihre Nachricht. Wir helfen bei Bestellungen, Lieferungen, Rückgaben, "
            "Zahlungen und Konten unseres Shops; hierbei können wir leider nicht helfen.",
            "pending": "offen",
            "processed": "bearbeitet",
            "delivered": "zugestellt",
            "cancelled": "storniert",
            "return requested": "zugestellt, Rückgabe läuft",
            "exchange requested": "zugestellt, Umtausch läuft",
        },
        "es": {
            "found": "Su pedido {order_id} ({items}): {status}. {parcels}",
            "parcels": "Seguimiento: {tracking}.",
            "no_parcels": "No se ha enviado ningún paquete.",
            "which_order": "¿A cuál de sus pedidos se refiere? Responda, por favor, con el número.",
            "candidate": "- {order_id}, {status}: {items}",
            "more": "- y {count} más",
            "not_found": "No hemos encontrado ese pedido entre los suyos. Compruebe el número y escríbanos desde la "
            "dirección de correo con la que hizo el pedido.",
            "unknown_customer": "No conocemos a ningún cliente con esta dirección de correo. Escríbanos desde la "
            "dirección con la que hizo el pedido e indique su número.",
            "unverified": "Solo podemos responder a esto a la persona titular de la cuenta, y no hemos podido "
            "comprobar que este mensaje sea suyo. Inicie sesión y escríbanos desde allí.",
            "no_orders": "No hay ningún pedido con su dirección de correo. Si pidió con otra dirección, escríbanos "
            "desde ella.",
            "colleague": "Gracias por su mensaje. Un compañero lo revisará y le escribirá.",
            "still_waiting": "Gracias por su paciencia. Nuestro equipo sigue con su mensaje y le escribirá.",
            "closed_unanswered": "Lamentamos no haber podido atender su mensaje. Si todavía es importante para usted, "
            "escríbanos de nuevo.",
            "out_of_scope": "Gracias por su mensaje. Ayudamos con pedidos, entregas, devoluciones, pagos y cuentas de "
            "nuestra tienda; con esta petición no podemos ayudarle.",
            "pending": "pendiente",
            "processed": "procesado",
            "delivered": "entregado",
            "cancelled": "cancelado",
            "return requested": "entregado, con una devolución en curso",
            "exchange requested": "entregado, con un cambio en curso",
        },
        "fr": {
            "found": "Votre commande {order_id} ({items}) : {status}. {parcels}",
            "parcels": "Suivi : {tracking}.",
            "no_parcels": "Aucun colis n'a été expédié.",
            "which_order": "De laquelle de vos commandes s'agit-il ? Répondez avec son numéro, s'il vous plaît.",
            "candidate": "- {order_id}, {status} : {items}",
            "more": "- et {count} autres",
            "not_found": "Nous n'avons pas trouvé cette commande parmi les vôtres. Vérifiez le numéro et écrivez-nous "
            "depuis l'adresse utilisée pour commander.",
            "unknown_customer": "Nous ne connaissons aucun client à cette adresse. Écrivez-nous depuis l'adresse "
            "utilisée pour commander et indiquez le numéro de la commande.",
            "unverified": "Nous ne pouvons répondre qu'à la personne titulaire du compte, et n'avons pas pu "
            "vérifier que ce message vient d'elle. Connectez-vous et écrivez-nous depuis votre compte.",
            "no_orders": "Il n'y a aucune commande à votre adresse. Si vous avez commandé avec une autre adresse, "
            "écrivez-nous depuis celle-ci.",
            "colleague": "Merci de votre message. Une personne de notre équipe l'examinera et vous écrira.",
            "still_waiting": "Merci de votre patience. Notre équipe a toujours votre message et vous écrira.",
            "closed_unanswered": "Nous regrettons de ne pas avoir pu traiter votre message. S'il est toujours "
            "d'actualité, écrivez-nous à nouveau.",
            "out_of_scope": "Merci de votre message. Nous aidons pour les commandes, livraisons, retours, paiements "
            "et comptes de notre boutique ; nous ne pouvons pas aider pour cette demande.",
            "pending": "en attente",
            "processed": "traitée",
            "delivered": "livrée",
            "cancelled": "annulée",
            "return requested": "livrée, retour en cours",
            "exchange requested": "livrée, échange en cours",
        },
    }
)


def say(key: str, language: str | None) -> str:
    """One of the fixed replies: in the language if we write it, else in English."""
    return _texts(language)[key]


def difference(amount: Decimal) -> str:
    """What becomes of a price difference; above 0 the customer pays it."""
    if not amount:
        return "The price stays the same."
    return f"You pay the difference of ${amount:.2f}." if amount > 0 else f"You get ${-amount:.2f} back."


def tell_orders(orders: Sequence[OrderFacts], language: str | None) -> str:
    """Where each order stands, its parcels and its items."""
    return "\n".join(_told(order, _texts(language)) for order in orders)


def ask_which(orders: Sequence[OrderFacts], language: str | None) -> str:
    """The question which order is meant, listing the candidates."""
    texts = _texts(language)
    listed = [texts["candidate"].format(**_fields(order, texts)) for order in orders[:_MAX_LISTED]]
    more = [texts["more"].format(count=len(orders) - _MAX_LISTED)] if len(orders) > _MAX_LISTED else []
    return "\n".join([texts["which_order"], *listed, *more])


def _told(order: OrderFacts, texts: Mapping[str, str]) -> str:
    tracking = ", ".join(order.tracking_ids)
    parcels = texts["parcels"].format(tracking=tracking) if tracking else texts["no_parcels"]
    return texts["found"].format(parcels=parcels, **_fields(order, texts))


def _fields(order: OrderFacts, texts: Mapping[str, str]) -> dict[str, str]:
    status = texts.get(order.status, order.status)
    return {"order_id": order.order_id, "status": status, "items": ", ".join(map(plain_name, order.items))}


def _texts(language: str | None) -> Mapping[str, str]:
    return _TEXTS.get(language or "en", _TEXTS["en"])
